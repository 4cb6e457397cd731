"""
Parsers that are given anything: what each has to keep to (L{tests.fuzz.targets}),
by chance in the ordinary tests, and guided by coverage with
C{python -m tests.fuzz}.
"""
