from __future__ import annotations

import sys

from compiled_dag import InputNode, MultiOutputNode
from tests.runtime.drawn import Counter, add


def test_a_node_shows_all_it_holds() -> None:
    with InputNode() as inp:
        counter = Counter.bind(3)
        value = counter.add.bind(inp)
        node = add.options(num_cpus=0).bind([value, {"deep": (inp, "text")}], y=inp.rate, z={})
    uuids = [each.get_stable_uuid() for each in (node, value, inp, counter, inp.rate)]
    expected = """\
(FunctionNode, {0})(
    body=<remote function tests.runtime.drawn.add>
    args=[
        [
            (ClassMethodNode, {1})(
                body=Counter.add()
                args=[
                    (InputNode, {2})(
                        body=input
                        args=[]
                        kwargs={{}}
                        options={{}}
                        other_args_to_resolve={{}}
                    ),
                ]
                kwargs={{}}
                options={{}}
                other_args_to_resolve={{
                    'parent_class_node': (ClassNode, {3})(
                        body=<remote class tests.runtime.drawn.Counter>
                        args=[
                            3,
                        ]
                        kwargs={{}}
                        options={{}}
                        other_args_to_resolve={{}}
                    ),
                    'prev_class_method_call': None,
                }}
            ),
            {{
                'deep': (
                    (InputNode, {2})(shown above),
                    'text',
                ),
            }},
        ],
    ]
    kwargs={{
        'y': (InputAttributeNode, {4})(
            body=input['rate']
            args=[]
            kwargs={{}}
            options={{}}
            other_args_to_resolve={{
                'dag_input_node': (InputNode, {2})(shown above),
                'key': 'rate',
            }}
        ),
        'z': {{}},
    }}
    options={{
        'num_cpus': 0,
    }}
    other_args_to_resolve={{}}
)"""
    assert str(node) == expected.format(*uuids)


def test_a_graph_that_shares_much_prints_short() -> None:
    node = add.bind(1, 1)
    for _ in range(50):
        node = add.bind(node, node)
    assert len(str(MultiOutputNode([node])).splitlines()) < 1000


def test_a_chain_deeper_than_the_stack_is_shown_whole() -> None:
    with InputNode() as inp:
        node = inp
        for _ in range(sys.getrecursionlimit()):
            node = add.bind(node, 1)
    lines = str(node).splitlines()
    assert sum("(FunctionNode, " in line for line in lines) == sys.getrecursionlimit()
    assert lines[-1] == ")"
