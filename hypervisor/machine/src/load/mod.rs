//! What stands in guest memory before the first instruction: kernels, firmware, tables.
