//! The registers of which a digest has the values.

use core::fmt;

macro_rules! registers {
    ($($name:ident $text:literal)*) => {
        /// A register: of the processor, of what waits for it, or of the virtual clock.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // their names below say it
        pub enum Register { $($name),* }

        impl Register {
            /// All, in their order.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$name),*];
            /// How many.
            pub const COUNT: usize = [$($text),*].len();

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

registers! {
    Rax "rax" Rcx "rcx" Rdx "rdx" Rbx "rbx" Rsp "rsp" Rbp "rbp" Rsi "rsi" Rdi "rdi"
    R8 "r8" R9 "r9" R10 "r10" R11 "r11" R12 "r12" R13 "r13" R14 "r14" R15 "r15"
    Rip "rip" Rflags "rflags"
    Cr0 "cr0" Cr2 "cr2" Cr3 "cr3" Cr4 "cr4"
    Dr0 "dr0" Dr1 "dr1" Dr2 "dr2" Dr3 "dr3" Dr6 "dr6" Dr7 "dr7"
    Xcr0 "xcr0"
    CsSelector "cs" CsBase "cs-base" CsLimit "cs-limit" CsAccess "cs-access"
    SsSelector "ss" SsBase "ss-base" SsLimit "ss-limit" SsAccess "ss-access"
    DsSelector "ds" DsBase "ds-base" DsLimit "ds-limit" DsAccess "ds-access"
    EsSelector "es" EsBase "es-base" EsLimit "es-limit" EsAccess "es-access"
    FsSelector "fs" FsBase "fs-base" FsLimit "fs-limit" FsAccess "fs-access"
    GsSelector "gs" GsBase "gs-base" GsLimit "gs-limit" GsAccess "gs-access"
    LdtrSelector "ldtr" LdtrBase "ldtr-base" LdtrLimit "ldtr-limit" LdtrAccess "ldtr-access"
    TrSelector "tr" TrBase "tr-base" TrLimit "tr-limit" TrAccess "tr-access"
    GdtrBase "gdtr-base" GdtrLimit "gdtr-limit" IdtrBase "idtr-base" IdtrLimit "idtr-limit"
    Pdpte0 "pdpte0" Pdpte1 "pdpte1" Pdpte2 "pdpte2" Pdpte3 "pdpte3"
    Efer "efer" Pat "pat" Debugctl "debugctl"
    SysenterCs "sysenter-cs" SysenterEsp "sysenter-esp" SysenterEip "sysenter-eip"
    Star "star" Lstar "lstar" Cstar "cstar" Fmask "fmask" KernelGsBase "kernel-gs-base" TscAux "tsc-aux"
    Activity "activity" Interruptibility "interruptibility" PendingDebug "pending-debug"
    EventDue "event-due" EventErrorCode "event-error-code" EventLength "event-length"
    WindowsAsked "windows-asked" NmiDue "nmi-due"
    Instructions "instructions" Charged "charged"
    ClockCount "clock-count" ClockNanoseconds "clock-ns" ClockFraction "clock-fraction" ClockRate "clock-rate"
}

impl Register {
    /// The general register of this number in instructions.
    #[must_use]
    pub const fn general(number: usize) -> Self {
        Self::ALL[number & 15]
    }

    /// The register of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|register| register.name() == name)
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
