//! The processor profile as the guest sees it: CPUID, MSRs, XSAVE.
