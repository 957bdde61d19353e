//! Two hosts, an arbiter and networks with faults, from a plan: at most one of them is ever live.
