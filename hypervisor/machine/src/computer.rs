//! The computer as a whole: which device answers which port and address, who raises which line, and what is due when.

use crate::context::{Context, Instant};
use crate::cpu::{CpuView, Msrs, Profile};
use crate::devices::fw_cfg::FwCfg;
use crate::devices::{BadState, Diagnostics, Keyboard, Pit, Pm, Rtc, Uart};
use crate::input::Input;
use crate::interrupts::Interrupts;
use crate::pci::{Pci, Signal};
use crate::ram::{HOLE, Layout};
use crate::virtio::net::Received;
use crate::{cpu, devices, interrupts, pci};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

pub mod parts;

/// Where the local APIC's page lies unless the guest has moved it, which is not offered.
pub const APIC: u64 = 0xFEE0_0000;
/// Where the I/O APIC's page lies.
pub const IO_APIC: u64 = 0xFEC0_0000;
const APIC_END: u64 = APIC + 0x1000;
const IO_APIC_END: u64 = IO_APIC + 0x1000;

/// The index of the firmware's debug port among the side consoles; virtio consoles come after it.
pub const DEBUG_CONSOLE: u8 = 0;

/// Ports that are not single bytes, and ranges.
mod ports {
    /// PCI configuration: address and data.
    pub const PCI_FIRST: u16 = 0xCF8;
    pub const PCI_LAST: u16 = 0xCFF;
    /// The reset control register, a byte among them.
    pub const RESET: u16 = 0xCF9;
    pub const FW_CFG_FIRST: u16 = 0x510;
    pub const FW_CFG_LAST: u16 = 0x51B;
    /// Power management.
    pub const PM_FIRST: u16 = 0x600;
    pub const PM_LAST: u16 = 0x60B;
    /// PCI I/O windows begin here.
    pub const BARS_FIRST: u16 = 0x1000;
}

/// Global system interrupts of the board.
mod gsi {
    pub const PIT: u8 = 0;
    pub const COM1: u8 = 4;
    pub const RTC: u8 = 8;
    pub const SCI: u8 = 9;
}

/// IA32_APIC_BASE, IA32_TSC_DEADLINE.
const APIC_BASE: u32 = 0x1B;
const TSC_DEADLINE: u32 = 0x6E0;

/// No deadline.
const NEVER: Instant = Instant::MAX;

/// The devices that do something by themselves when time passes.
#[derive(Clone, Copy)]
enum Timed {
    Interrupts,
    Uart,
    Pit,
    Rtc,
    Pm,
    Pci,
}

impl Timed {
    const ALL: [Self; Self::COUNT] =
        [Self::Interrupts, Self::Uart, Self::Pit, Self::Rtc, Self::Pm, Self::Pci];
    const COUNT: usize = 6;
}

/// What the computer is made of that is no device's state.
pub struct Parts {
    /// What the processor says it is.
    pub profile: &'static Profile,
    /// PCI with the virtio devices in it.
    pub pci: Pci,
    /// The firmware's configuration device.
    pub fw_cfg: FwCfg,
    /// Where RAM lies.
    pub layout: Layout,
    /// Wall-clock time at power-on, seconds since 1970.
    pub wall_clock: u64,
    /// Seed of everything random that the guest can see.
    pub seed: [u8; 32],
    /// There is a serial port.
    pub serial: bool,
}

/// Everything about the computer that can change, but for its memory, its disks and its processor's registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // one field for each device, named after it
pub struct State {
    pub interrupts: interrupts::State,
    pub pci: pci::State,
    pub msrs: cpu::msr::State,
    pub uart: devices::uart::State,
    pub pit: devices::pit::State,
    pub rtc: devices::rtc::State,
    pub pm: devices::pm::State,
    pub keyboard: devices::keyboard::State,
    pub diagnostics: devices::diagnostics::State,
    pub fw_cfg: devices::fw_cfg::State,
    #[serde(with = "crate::virtio::rng::generator")]
    pub random: ChaCha20Rng,
}

/// Accesses that no device answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// Ports.
    pub ports: u64,
    /// Guest-physical addresses.
    pub memory: u64,
    /// MSRs.
    pub msrs: u64,
}

/// The computer that the guest sees, but for its memory and its processor's registers.
pub struct Computer {
    /// The interrupt controllers.
    pub interrupts: Interrupts,
    /// PCI and virtio.
    pub pci: Pci,
    profile: &'static Profile,
    msrs: Msrs,
    uart: Uart,
    pit: Pit,
    rtc: Rtc,
    pm: Pm,
    keyboard: Keyboard,
    diagnostics: Diagnostics,
    fw_cfg: FwCfg,
    random: ChaCha20Rng,
    /// The serial port is there.
    serial: bool,
    /// The levels of the board's lines as the controllers know them, a bit for each. Follows from the rest.
    lines: u16,
    /// When each timed device wants to be looked at next.
    deadlines: [Instant; Timed::COUNT],
    /// The earliest of them.
    due: Instant,
    strays: Strays,
}

impl Computer {
    /// The computer at power-on.
    pub fn new(parts: Parts) -> Self {
        let (low, high) = (parts.layout.low(), parts.layout.high());
        Self {
            interrupts: Interrupts::new(),
            pci: parts.pci,
            profile: parts.profile,
            msrs: Msrs::new(parts.profile),
            uart: Uart::new(),
            pit: Pit::new(),
            rtc: Rtc::new(parts.wall_clock, low.end, high.end - high.start),
            pm: Pm::new(),
            keyboard: Keyboard::new(),
            diagnostics: Diagnostics::new(),
            fw_cfg: parts.fw_cfg,
            random: ChaCha20Rng::from_seed(parts.seed),
            serial: parts.serial,
            lines: 0,
            deadlines: [NEVER; Timed::COUNT],
            due: NEVER,
            strays: Strays::default(),
        }
    }

    /// The state.
    pub fn save(&self) -> State {
        State {
            interrupts: self.interrupts.save(),
            pci: self.pci.save(),
            msrs: self.msrs.save(),
            uart: self.uart.save(),
            pit: self.pit.save(),
            rtc: self.rtc.save(),
            pm: self.pm.save(),
            keyboard: self.keyboard.save(),
            diagnostics: self.diagnostics.save(),
            fw_cfg: self.fw_cfg.save(),
            random: self.random.clone(),
        }
    }

    /// Puts a computer that is made of the same parts into the state that was saved. On an error it is as it was.
    ///
    /// # Errors
    /// [`BadState`] of any device.
    pub fn restore(&mut self, state: State) -> Result<(), BadState> {
        let (interrupts, pci) = (Interrupts::restore(state.interrupts)?, Pci::restore(state.pci)?);
        let msrs = Msrs::restore(self.profile, state.msrs)
            .map_err(|_| BadState("an MSR holds what cannot be written to it"))?;
        let (uart, pit) = (Uart::restore(state.uart)?, Pit::restore(state.pit)?);
        let (rtc, pm) = (Rtc::restore(state.rtc)?, Pm::restore(state.pm)?);
        let keyboard = Keyboard::restore(state.keyboard)?;
        let diagnostics = Diagnostics::restore(state.diagnostics)?;
        self.fw_cfg.restore(state.fw_cfg)?;
        *self = Self {
            interrupts,
            pci,
            msrs,
            uart,
            pit,
            rtc,
            pm,
            keyboard,
            diagnostics,
            random: state.random,
            profile: self.profile,
            serial: self.serial,
            fw_cfg: core::mem::take(&mut self.fw_cfg),
            lines: 0,
            deadlines: [NEVER; Timed::COUNT],
            due: NEVER,
            strays: self.strays,
        };
        self.lines = [(gsi::COM1, self.uart.irq()), (gsi::RTC, self.rtc.irq()), (gsi::SCI, self.pm.irq())]
            .into_iter()
            .fold(0, |lines, (gsi, level)| lines | u16::from(level) << gsi);
        Timed::ALL.into_iter().for_each(|device| self.plan(device));
        Ok(())
    }

    /// Sets up what firmware would have, for a kernel that is started without: interrupt wires, memory types, PCI addresses.
    pub fn set_up_as_firmware_does(&mut self) {
        self.interrupts.set_virtual_wire();
        self.msrs.set_mtrrs_after_firmware(HOLE);
        self.pci.assign();
    }

    /// The time-stamp counter begins at 0 at this moment, as after a reset.
    pub fn reset_clocks(&mut self, now: Instant) {
        self.msrs.reset(now);
    }

    /// The processor's profile.
    pub const fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// Accesses that nothing answered.
    pub const fn strays(&self) -> Strays {
        self.strays
    }

    /// When something is due next; [`Instant::MAX`]: never.
    #[inline]
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// CPUID.
    #[inline]
    pub fn cpuid(&self, leaf: u32, sub: u32, view: CpuView) -> [u32; 4] {
        self.profile.cpuid(leaf, sub, view)
    }

    /// The next 64 bits of the guest's generator.
    pub fn random(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// The next 256 bits of it: a seed for a generator of the guest's own.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        seed
    }

    /// The guest's time-stamp counter.
    #[inline]
    pub fn time_stamp(&self, now: Instant) -> u64 {
        self.msrs.time_stamp(now)
    }

    /// RDMSR of what is not in the VMCS; `None`: #GP.
    pub fn read_msr(&mut self, number: u32, now: Instant) -> Option<u64> {
        let value = match number {
            // The controllers know the deadline in virtual time; 0 is none in both.
            TSC_DEADLINE => self.interrupts.read_msr(number, now).map(|at| match at {
                0 => 0,
                at => self.msrs.time_stamp(at),
            }),
            APIC_BASE | 0x800..=0x8FF => self.interrupts.read_msr(number, now),
            _ => self.msrs.read(number, now),
        };
        self.strays.msrs += u64::from(value.is_none());
        value
    }

    /// WRMSR of what is not in the VMCS; `None`: #GP.
    pub fn write_msr(&mut self, number: u32, value: u64, now: Instant) -> Option<()> {
        let done = match number {
            TSC_DEADLINE => {
                let deadline = if value == 0 { 0 } else { self.msrs.instant_of(value, now) };
                self.interrupts.write_msr(number, deadline, now)
            }
            APIC_BASE | 0x800..=0x8FF => self.interrupts.write_msr(number, value, now),
            _ => self.msrs.write(number, value, now),
        };
        match number {
            TSC_DEADLINE | 0x800..=0x8FF => self.plan(Timed::Interrupts),
            _ => {}
        }
        self.strays.msrs += u64::from(done.is_none());
        done
    }

    /// Notes when this device wants to be looked at next.
    #[inline]
    fn plan(&mut self, device: Timed) {
        let deadline = match device {
            Timed::Interrupts => self.interrupts.deadline(),
            Timed::Uart => self.uart.deadline(),
            Timed::Pit => self.pit.deadline(),
            Timed::Rtc => self.rtc.deadline(),
            Timed::Pm => self.pm.deadline(),
            Timed::Pci => self.pci.deadline(),
        };
        let deadline = deadline.unwrap_or(NEVER);
        let slot = &mut self.deadlines[device as usize];
        if *slot != deadline {
            *slot = deadline;
            self.due = self.deadlines.into_iter().fold(NEVER, Instant::min);
        }
    }

    /// Lets time pass: every device does what has become due.
    pub fn advance(&mut self, context: &mut Context<'_, '_>) {
        let now = context.now;
        if now < self.due {
            return;
        }
        let is_due = |device: Timed| self.deadlines[device as usize] <= now;
        let [interrupts, uart, pit, rtc, pm, pci] = Timed::ALL.map(is_due);
        if interrupts {
            self.interrupts.advance(now);
            self.plan(Timed::Interrupts);
        }
        if uart {
            self.uart.advance(now);
            self.sync_uart();
        }
        if pit {
            self.advance_pit(now);
        }
        if rtc {
            self.rtc.advance(now);
            self.sync_rtc();
        }
        if pm {
            self.pm.advance(now);
            self.sync_pm();
        }
        if pci {
            self.pci.advance(context);
            self.sync_pci();
        }
    }

    fn advance_pit(&mut self, now: Instant) {
        // Ticks that were missed are one edge: the controllers could hold no more.
        if self.pit.advance(now) != 0 {
            self.interrupts.set_line(gsi::PIT, false);
            self.interrupts.set_line(gsi::PIT, true);
        }
        self.plan(Timed::Pit);
    }

    /// Sets the line of a device on the board. Most accesses change nothing.
    #[inline]
    fn drive(&mut self, gsi: u8, level: bool) {
        if (self.lines >> gsi & 1 != 0) != level {
            self.lines ^= 1 << gsi;
            self.interrupts.set_line(gsi, level);
        }
    }

    #[inline]
    fn sync_uart(&mut self) {
        self.drive(gsi::COM1, self.uart.irq());
        self.plan(Timed::Uart);
    }

    fn sync_rtc(&mut self) {
        self.drive(gsi::RTC, self.rtc.irq());
        self.plan(Timed::Rtc);
    }

    fn sync_pm(&mut self) {
        self.drive(gsi::SCI, self.pm.irq());
        self.plan(Timed::Pm);
    }

    /// Hands on the interrupts that PCI devices have raised.
    fn sync_pci(&mut self) {
        if self.pci.has_signals() {
            while let Some(signal) = self.pci.take_signal() {
                match signal {
                    Signal::Line { gsi, level } => self.interrupts.set_line(gsi, level),
                    Signal::Message { address, data } => self.interrupts.message(address, data),
                }
            }
        }
        self.plan(Timed::Pci);
    }

    /// IN of 1, 2 or 4 bytes. Ports that nothing answers read as ones.
    #[inline]
    pub fn read_port(&mut self, port: u16, size: u8, context: &mut Context<'_, '_>) -> u32 {
        match port {
            ports::PCI_FIRST..=ports::PCI_LAST if !(size == 1 && port == ports::RESET) => {
                self.pci.read_port(port, size)
            }
            ports::FW_CFG_FIRST..=ports::FW_CFG_LAST => (0..u16::from(size.min(4))).fold(0, |value, i| {
                value | u32::from(self.fw_cfg.read(port - ports::FW_CFG_FIRST + i)) << (8 * i)
            }),
            ports::BARS_FIRST.. => self.read_bar_port(port, size),
            _ if size == 1 => u32::from(self.read_byte(port, context.now)),
            _ => (0..u16::from(size.min(4))).fold(0, |value, i| {
                value | u32::from(self.read_byte(port.wrapping_add(i), context.now)) << (8 * i)
            }),
        }
    }

    /// OUT of 1, 2 or 4 bytes. What nothing answers is ignored.
    #[inline]
    pub fn write_port(&mut self, port: u16, size: u8, value: u32, context: &mut Context<'_, '_>) {
        match port {
            ports::PCI_FIRST..=ports::PCI_LAST if !(size == 1 && port == ports::RESET) => {
                self.pci.write_port(port, size, value, context);
                self.sync_pci();
            }
            ports::FW_CFG_FIRST..=ports::FW_CFG_LAST => {
                self.fw_cfg.write(port - ports::FW_CFG_FIRST, size, value, context.ram);
            }
            ports::BARS_FIRST.. => self.write_bar_port(port, size, value, context),
            _ if size == 1 => self.write_byte(port, value as u8, context),
            _ => {
                for (i, byte) in value.to_le_bytes().into_iter().take(usize::from(size)).enumerate() {
                    self.write_byte(port.wrapping_add(i as u16), byte, context);
                }
            }
        }
    }

    fn read_bar_port(&mut self, port: u16, size: u8) -> u32 {
        let Some(place) = self.pci.find_io(port) else {
            self.strays.ports += 1;
            return u32::MAX;
        };
        let value = self.pci.read(place, size);
        self.sync_pci();
        value as u32
    }

    fn write_bar_port(&mut self, port: u16, size: u8, value: u32, context: &mut Context<'_, '_>) {
        let Some(place) = self.pci.find_io(port) else {
            self.strays.ports += 1;
            return;
        };
        self.pci.write(place, size, value.into(), context);
        self.sync_pci();
    }

    /// One byte of a port on the board.
    fn read_byte(&mut self, port: u16, now: Instant) -> u8 {
        match port {
            0x3F8..=0x3FF if self.serial => {
                let value = self.uart.read(port - 0x3F8, now);
                self.sync_uart();
                value
            }
            0x40..=0x43 => self.pit.read(port - 0x40, now),
            0x61 => self.pit.read_control(now),
            0x60 | 0x64 => self.keyboard.read(port - 0x60, now),
            0x92 => self.keyboard.read_port_92(),
            ports::RESET => self.keyboard.read_reset_control(),
            0x70..=0x71 => {
                let value = self.rtc.read(port - 0x70, now);
                self.sync_rtc();
                value
            }
            0x20 | 0x21 | 0xA0 | 0xA1 | 0x4D0 | 0x4D1 => self.interrupts.read_port(port),
            ports::PM_FIRST..=ports::PM_LAST => {
                let value = self.pm.read(port - ports::PM_FIRST, now);
                self.sync_pm();
                value
            }
            0x80 => self.diagnostics.read_post(),
            0x402 => crate::devices::diagnostics::DEBUG_READS,
            _ => {
                self.strays.ports += 1;
                0xFF
            }
        }
    }

    /// One byte of a port on the board.
    fn write_byte(&mut self, port: u16, value: u8, context: &mut Context<'_, '_>) {
        let now = context.now;
        let power = match port {
            0x3F8..=0x3FF if self.serial => {
                if let Some(byte) = self.uart.write(port - 0x3F8, value, now) {
                    context.out.console(byte);
                }
                self.sync_uart();
                None
            }
            0x80 => {
                self.diagnostics.write_post(value);
                None
            }
            0x40..=0x43 => {
                self.pit.write(port - 0x40, value, now);
                self.advance_pit(now);
                None
            }
            0x61 => {
                self.pit.write_control(value, now);
                None
            }
            0x60 | 0x64 => self.keyboard.write(port - 0x60, value, now),
            0x92 => self.keyboard.write_port_92(value),
            ports::RESET => self.keyboard.write_reset_control(value),
            0x70..=0x71 => {
                self.rtc.write(port - 0x70, value, now);
                self.sync_rtc();
                None
            }
            0x20 | 0x21 | 0xA0 | 0xA1 | 0x4D0 | 0x4D1 => {
                self.interrupts.write_port(port, value);
                None
            }
            ports::PM_FIRST..=ports::PM_LAST => {
                let power = self.pm.write(port - ports::PM_FIRST, value, now);
                self.sync_pm();
                power
            }
            0x402 => {
                context.out.side_console(DEBUG_CONSOLE, value);
                None
            }
            _ => {
                self.strays.ports += 1;
                None
            }
        };
        if let Some(power) = power {
            context.out.power(power);
        }
    }

    /// A read of 1 to 8 bytes of device memory. What nothing answers reads as ones.
    pub fn read_memory(&mut self, address: u64, out: &mut [u8], context: &mut Context<'_, '_>) {
        out.fill(0xFF);
        match address {
            APIC..APIC_END => {
                // A register has 32 bits at a multiple of 16; what lies between is undefined (SDM 3A, 12.4.1): zeros.
                let offset = address & 0xFFC;
                let word = if offset & 15 == 0 { self.interrupts.read_apic(offset, context.now) } else { 0 };
                copy_word(word, address, out);
            }
            IO_APIC..IO_APIC_END => copy_word(self.interrupts.read_io_apic(address & 0xFFC), address, out),
            _ => match self.pci.find_memory(address) {
                Some(place) => {
                    let value = self.pci.read(place, out.len() as u8);
                    for (place, byte) in out.iter_mut().zip(value.to_le_bytes()) {
                        *place = byte;
                    }
                    self.sync_pci();
                }
                None => self.strays.memory += 1,
            },
        }
    }

    /// A write of 1 to 8 bytes of device memory. What nothing answers is ignored.
    pub fn write_memory(&mut self, address: u64, bytes: &[u8], context: &mut Context<'_, '_>) {
        let mut word = [0; 8];
        for (place, byte) in word.iter_mut().zip(bytes) {
            *place = *byte;
        }
        let value = u64::from_le_bytes(word);
        match address {
            // Registers are 32 bits wide at multiples of 16 bytes; other writes are undefined and ignored (SDM 3A, 12.4.1).
            APIC..APIC_END => {
                if bytes.len() >= 4 && address & 15 == 0 {
                    self.interrupts.write_apic(address & 0xFF0, value as u32, context.now);
                    self.plan(Timed::Interrupts);
                }
            }
            IO_APIC..IO_APIC_END => self.interrupts.write_io_apic(address & 0xFFC, value as u32),
            _ => match self.pci.find_memory(address) {
                Some(place) => {
                    self.pci.write(place, bytes.len() as u8, value, context);
                    self.sync_pci();
                }
                None => self.strays.memory += 1,
            },
        }
    }

    /// Takes in something from outside. Returns how much of it: bytes of console input, 0 for a frame that may be offered again
    /// when the guest has a buffer, else 1.
    pub fn input(&mut self, input: Input<'_>, context: &mut Context<'_, '_>) -> usize {
        match input {
            Input::Console(_) if !self.serial => 0,
            Input::Console(bytes) => {
                let taken = self.uart.receive(bytes, context.now);
                self.sync_uart();
                taken
            }
            Input::SideConsole(bytes) => {
                let taken = self.pci.receive_console(bytes, context);
                self.sync_pci();
                taken
            }
            Input::Frame { device, frame } => {
                let taken = self.pci.receive_frame(device, frame, context);
                self.sync_pci();
                usize::from(taken != Received::NoBuffer)
            }
            Input::Starved { device } => {
                self.pci.ask_for_buffer(device, context);
                self.sync_pci();
                1
            }
            Input::Link { device, up } => {
                self.pci.set_link(device, up);
                self.sync_pci();
                1
            }
            Input::PowerButton => {
                self.pm.power_button();
                self.sync_pm();
                1
            }
            Input::Power(power) => {
                context.out.power(power);
                1
            }
            // The clock is the runner's: it hands these to it.
            Input::Clock(_) | Input::Wake { .. } => 1,
        }
    }

    /// Bytes of console input that would be taken now.
    pub fn console_room(&self) -> usize {
        if self.serial { self.uart.room() } else { 0 }
    }
}

/// Puts the bytes of a 32-bit register that an access at `address` reads into `out`.
fn copy_word(word: u32, address: u64, out: &mut [u8]) {
    let bytes = word.to_le_bytes();
    for (place, byte) in out.iter_mut().zip(bytes.iter().skip((address & 3) as usize)) {
        *place = *byte;
    }
}
