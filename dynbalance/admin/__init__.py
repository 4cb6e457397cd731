"""
What people see and say.

In the order of a request's way: L{dynbalance.admin.site} (HTTP in and out),
L{dynbalance.admin.api} (to an endpoint and back), L{dynbalance.admin.fields}
and L{dynbalance.admin.parameters} (what was asked),
L{dynbalance.admin.table} (which endpoints there are),
L{dynbalance.admin.operations}, L{dynbalance.admin.history},
L{dynbalance.admin.backup} and L{dynbalance.admin.happenings} (what is done),
L{dynbalance.admin.views} and L{dynbalance.admin.answers} (what is said), beside them
L{dynbalance.admin.pages} (what is no order: metrics, readiness) and L{dynbalance.admin.dashboard}.
"""
