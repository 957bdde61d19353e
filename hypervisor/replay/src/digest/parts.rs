//! The parts of the virtual machine that a digest has one hash of: devices, disks, FPU state.

use core::fmt;

macro_rules! parts {
    ($($name:ident $text:literal)*) => {
        /// A part that has one hash in a digest.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // their names below say it
        pub enum Part { $($name),* }

        impl Part {
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

parts! {
    X87 "x87"
    Sse "sse"
    Avx "avx"
    Avx512 "avx512"
    Pic "pic"
    IoApic "io-apic"
    LocalApic "local-apic"
    Msrs "msrs"
    Uart "uart"
    Pit "pit"
    Rtc "rtc"
    Pm "pm"
    Keyboard "keyboard"
    Diagnostics "diagnostics"
    FwCfg "fw-cfg"
    Random "random"
    Pci "pci"
    Function0 "pci-0"
    Function1 "pci-1"
    Function2 "pci-2"
    Function3 "pci-3"
    Function4 "pci-4"
    Function5 "pci-5"
    Function6 "pci-6"
    Function7 "pci-7"
    Disk0 "disk-0"
    Disk1 "disk-1"
    Disk2 "disk-2"
    Disk3 "disk-3"
    Disk4 "disk-4"
    Disk5 "disk-5"
    Disk6 "disk-6"
    Disk7 "disk-7"
}

impl Part {
    /// The disk with this index; there are eight at most.
    #[must_use]
    pub const fn disk(index: usize) -> Self {
        Self::ALL[Self::Disk0 as usize + if index < 8 { index } else { 7 }]
    }

    /// The part of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
