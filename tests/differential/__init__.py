"""Small scripts, played under the real Ray and under the alias; their transcripts must agree.

`scripts`: the corpus. `player`: runs it in one process. `corpus`: reads it and what was recorded.
`python -m tests.differential` compares with the real Ray, and records (`make differential`);
`test_differential` plays it under the alias and compares with what was recorded.
"""
