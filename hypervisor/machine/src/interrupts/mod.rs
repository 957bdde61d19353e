//! The interrupt controllers: a pair of 8259A, an I/O APIC, a local APIC.
