//! Digests of the virtual machine's whole state, which can be compared, and which name what differs.
