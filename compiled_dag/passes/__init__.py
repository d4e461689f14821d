"""The compiler's passes: pure functions, one a file, called in order by `compiled_dag.compiler`."""
