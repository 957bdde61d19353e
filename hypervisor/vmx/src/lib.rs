//! VMX as types: VMCS fields, capability negotiation, exit decoding, EPT, event injection.
#![no_std]
