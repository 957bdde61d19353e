//! A PCI function with a virtio device in it: where its structures lie, and its ways to interrupt (virtio 1.2, 4.1).
//!
//! All structures can be reached by ports (base address register 0), which needs no decoding of instructions, and are listed
//! first there: drivers take the first that they can use. They are in memory (register 1) as well, behind the MSI-X table.

use serde::{Deserialize, Serialize};

use super::header::{Header, REGISTERS, Registers, command, register};
use super::msix::Vectors;
use crate::context::Context;
use crate::devices::BadState;
use crate::virtio::transport::{COMMON, Events, Transport};
use crate::virtio::{Buffers, CONFIG, Model};

/// The base address register of the ports.
pub const PORTS: u8 = 0;
/// The base address register of the memory.
pub const MEMORY: u8 = 1;
/// Ports of a function.
pub const PORTS_SIZE: u32 = 0x100;
/// Bytes of memory of a function.
pub const MEMORY_SIZE: u32 = 0x2000;

/// Where the structures lie within [`PORTS`], and from [`IN_MEMORY`] on within [`MEMORY`].
const COMMON_AT: u32 = 0;
const ISR_AT: u32 = 0x40;
const CONFIG_AT: u32 = 0x80;
const NOTIFY_AT: u32 = 0xc0;
const NOTIFY_SIZE: u32 = 0x10;
/// Bytes from one queue's notification address to the next one's.
const NOTIFY_STEP: u32 = 4;
/// The device status within the common structure.
const STATUS: u32 = COMMON_AT + 0x14;

/// Where things lie within [`MEMORY`].
const TABLE: u32 = 0;
const PENDING: u32 = 0x800;
const IN_MEMORY: u32 = 0x1000;

/// Register numbers of the capabilities.
const MSIX: usize = 0x40 / 4;
const IN_PORTS_CAPABILITIES: usize = 0x50;
const WINDOW: usize = 0x98;
const IN_MEMORY_CAPABILITIES: usize = 0xac;

/// Bits of the MSI-X capability's first register.
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_MASK: u32 = 1 << 30;

/// Registers of the PCI configuration access capability (4.1.4.9).
const WINDOW_BAR: usize = WINDOW / 4 + 1;
const WINDOW_OFFSET: usize = WINDOW / 4 + 2;
const WINDOW_LENGTH: usize = WINDOW / 4 + 3;
/// Its data.
pub(super) const WINDOW_DATA: usize = WINDOW / 4 + 4;

/// Types of virtio's capabilities.
const TYPE_COMMON: u32 = 1;
const TYPE_NOTIFY: u32 = 2;
const TYPE_ISR: u32 = 3;
const TYPE_DEVICE: u32 = 4;
const TYPE_WINDOW: u32 = 5;

/// The bits that can be written.
const WRITABLE: Registers = {
    let mut all = [0; REGISTERS];
    all[register::COMMAND] = command::WRITABLE;
    // Cache line size and latency timer: kept, without effect.
    all[register::MISCELLANEOUS] = 0x0000_ffff;
    all[register::BAR + PORTS as usize] = !(PORTS_SIZE - 1);
    all[register::BAR + MEMORY as usize] = !(MEMORY_SIZE - 1);
    all[register::INTERRUPT] = 0xff;
    all[MSIX] = MSIX_ENABLE | MSIX_MASK;
    all[WINDOW_BAR] = 0xff;
    all[WINDOW_OFFSET] = !0;
    all[WINDOW_LENGTH] = !0;
    all
};

/// Everything about a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Configuration space.
    pub header: Header,
    /// MSI-X.
    pub vectors: Vectors,
    /// The common registers.
    pub transport: Transport,
    /// The device.
    pub model: Model,
}

/// A function.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub(super) state: State,
}

impl Function {
    /// After power-on.
    pub(super) fn new(model: Model) -> Self {
        let header = Header { registers: registers(&model) };
        Self { state: State { header, vectors: Vectors::new(), transport: Transport::new(), model } }
    }

    /// The function that was saved.
    pub(super) fn restore(state: State) -> Result<Self, BadState> {
        if !state.header.is_sound(&registers(&state.model), &WRITABLE) {
            return Err(BadState("a PCI function's register has bits that it has not"));
        }
        let count = state.model.queues() + 1;
        let fresh = Vectors::new();
        let beyond =
            state.vectors.entries.iter().zip(&fresh.entries).skip(count).any(|(one, fresh)| one != fresh);
        if beyond || state.vectors.pending >> count != 0 {
            return Err(BadState("an MSI-X vector that does not exist is in use"));
        }
        state.transport.check(&state.model)?;
        state.model.check()?;
        Ok(Self { state })
    }

    /// As after power-on.
    pub(super) fn reset(&mut self) {
        self.reset_device();
        self.state.header.registers = registers(&self.state.model);
        self.state.vectors = Vectors::new();
    }

    /// The driver, or the board, resets the device.
    fn reset_device(&mut self) {
        self.state.transport = Transport::new();
        self.state.model.reset();
        // What has not been sent is no longer wanted.
        self.state.vectors.pending = 0;
    }

    /// Where its ports begin, if it answers any.
    pub(super) fn ports(&self) -> Option<u16> {
        let header = &self.state.header;
        let base = header.get(register::BAR) & !(PORTS_SIZE - 1);
        let answers = header.command() & command::IO != 0 && base != 0;
        u16::try_from(base).ok().filter(|_| answers)
    }

    /// Where its memory begins, if it answers any.
    pub(super) fn memory(&self) -> Option<u32> {
        let header = &self.state.header;
        let base = header.get(register::BAR + MEMORY as usize) & !(MEMORY_SIZE - 1);
        let answers = header.command() & command::MEMORY != 0 && base != 0;
        Some(base).filter(|_| answers)
    }

    /// Gives it addresses, an interrupt line's number, and the right to use all.
    pub(super) fn assign(&mut self, ports: u16, memory: u32, line: u8) {
        let enable = command::IO | command::MEMORY | command::MASTER;
        let header = &mut self.state.header;
        header.write(register::BAR, ports.into(), !0, &WRITABLE);
        header.write(register::BAR + MEMORY as usize, memory, !0, &WRITABLE);
        header.write(register::INTERRUPT, line.into(), 0xff, &WRITABLE);
        header.write(register::COMMAND, enable, enable, &WRITABLE);
    }

    /// Whether the device may access memory.
    pub(super) fn is_master(&self) -> bool {
        self.state.header.command() & command::MASTER != 0
    }

    fn uses_messages(&self) -> bool {
        self.state.header.get(MSIX) & MSIX_ENABLE != 0
    }

    /// The interrupt pin wants to be driven.
    fn pin(&self) -> bool {
        self.state.transport.isr != 0 && !self.uses_messages()
    }

    /// The level of the interrupt pin.
    pub(super) fn line(&self) -> bool {
        self.pin() && self.state.header.command() & command::NO_INTX == 0
    }

    /// Vectors whose messages can be sent now.
    pub(super) fn ready(&self) -> u8 {
        let free = self.state.header.get(MSIX) & (MSIX_ENABLE | MSIX_MASK) == MSIX_ENABLE;
        if free && self.is_master() { self.state.vectors.ready() } else { 0 }
    }

    /// Takes the next message to be sent.
    pub(super) fn take_message(&mut self) -> Option<(u64, u32)> {
        let ready = self.ready();
        let index = ready.trailing_zeros() as usize;
        let entry = self.state.vectors.entries.get(index)?;
        self.state.vectors.pending &= !(1 << index);
        Some((entry.address, entry.data))
    }

    /// Notes what the driver has to be told.
    pub(super) fn raise(&mut self, events: Events) {
        if events.is_empty() {
            return;
        }
        if self.uses_messages() {
            self.state.vectors.pending |= self.state.transport.vectors(events);
        } else {
            self.state.transport.isr |= events.isr();
        }
    }

    /// Does what the driver has notified of and what is not done yet.
    pub(super) fn work(&mut self, ctx: &mut Context<'_, '_>, buffers: &mut Buffers) {
        if self.is_master() {
            let State { transport, model, .. } = &mut self.state;
            let events = transport.serve(model, ctx, buffers);
            self.raise(events);
        }
    }

    /// Reads a register of configuration space, all of it.
    pub(super) fn read_register(&self, register: usize) -> u32 {
        let value = self.state.header.get(register);
        match register {
            register::COMMAND if self.pin() => value | command::STATUS_INTERRUPT,
            _ => value,
        }
    }

    /// Writes those bits of a register that `lanes` has.
    pub(super) fn write_register(
        &mut self,
        register: usize,
        value: u32,
        lanes: u32,
        ctx: &mut Context<'_, '_>,
        buffers: &mut Buffers,
    ) {
        let was_master = self.is_master();
        self.state.header.write(register, value, lanes, &WRITABLE);
        if register == register::COMMAND && !was_master {
            // What was notified of before the device could do it.
            self.work(ctx, buffers);
        }
    }

    /// What the PCI configuration access capability points at: register, offset, size.
    fn window(&self) -> Option<(u8, u32, u8)> {
        let header = &self.state.header;
        let (bar, offset) = (header.get(WINDOW_BAR) as u8, header.get(WINDOW_OFFSET));
        let length @ (1 | 2 | 4) = header.get(WINDOW_LENGTH) else { return None };
        offset.is_multiple_of(length).then_some((bar, offset, length as u8))
    }

    /// Reads by the PCI configuration access capability.
    pub(super) fn read_window(&mut self) -> u32 {
        let Some((bar, offset, size)) = self.window() else { return 0 };
        self.read(bar, offset, size) as u32
    }

    /// Writes by the PCI configuration access capability.
    pub(super) fn write_window(&mut self, value: u32, ctx: &mut Context<'_, '_>, buffers: &mut Buffers) {
        if let Some((bar, offset, size)) = self.window() {
            self.write(bar, offset, size, value.into(), ctx, buffers);
        }
    }

    /// Reads within a base address register's range: 1, 2, 4 or 8 bytes.
    pub(super) fn read(&mut self, bar: u8, offset: u32, size: u8) -> u64 {
        if size == 8 {
            return self.read(bar, offset, 4) | self.read(bar, offset.wrapping_add(4), 4) << 32;
        }
        let value = match (bar, offset) {
            (PORTS, _) => self.read_structure(offset),
            (MEMORY, TABLE..PENDING) => {
                let value = self.state.vectors.read(offset & !3, self.state.model.queues() + 1);
                value >> (8 * (offset & 3))
            }
            (MEMORY, PENDING) => self.state.vectors.pending.into(),
            (MEMORY, IN_MEMORY..) => self.read_structure(offset - IN_MEMORY),
            _ => 0,
        };
        u64::from(match size {
            1 => value & 0xff,
            2 => value & 0xffff,
            _ => value,
        })
    }

    /// Writes within a base address register's range: 1, 2, 4 or 8 bytes.
    pub(super) fn write(
        &mut self,
        bar: u8,
        offset: u32,
        size: u8,
        value: u64,
        ctx: &mut Context<'_, '_>,
        buffers: &mut Buffers,
    ) {
        let low = match size {
            1 => value as u32 & 0xff,
            2 => value as u32 & 0xffff,
            _ => value as u32,
        };
        match (bar, offset) {
            (PORTS, _) => self.write_structure(offset, low, ctx, buffers),
            // Only double words and quad words may be written (6.8.2).
            (MEMORY, TABLE..PENDING) if size >= 4 => {
                self.state.vectors.write(offset, low, self.state.model.queues() + 1);
            }
            (MEMORY, IN_MEMORY..) => self.write_structure(offset - IN_MEMORY, low, ctx, buffers),
            _ => {}
        }
        if size == 8 {
            self.write(bar, offset.wrapping_add(4), 4, value >> 32, ctx, buffers);
        }
    }

    fn read_structure(&mut self, offset: u32) -> u32 {
        let State { transport, model, .. } = &mut self.state;
        match offset {
            0..COMMON => transport.read(offset, model),
            // Reading takes what is there, and so lets go of the interrupt line.
            ISR_AT => core::mem::take(&mut transport.isr).into(),
            CONFIG_AT..NOTIFY_AT => {
                let at = (offset - CONFIG_AT) as usize;
                let config = model.config();
                (0..4).rev().fold(0, |all, byte| all << 8 | config.get(at + byte).map_or(0, |&b| b.into()))
            }
            _ => 0,
        }
    }

    fn write_structure(&mut self, offset: u32, value: u32, ctx: &mut Context<'_, '_>, buffers: &mut Buffers) {
        let State { transport, model, .. } = &mut self.state;
        match offset {
            NOTIFY_AT.. => {
                let queue = (offset - NOTIFY_AT) / NOTIFY_STEP;
                if queue < model.queues() as u32 {
                    transport.kicked |= 1 << queue;
                    self.work(ctx, buffers);
                }
            }
            STATUS if value as u8 == 0 => self.reset_device(),
            STATUS => {
                transport.write_status(value as u8, model);
                // Notifications may come before DRIVER_OK.
                self.work(ctx, buffers);
            }
            0..COMMON => transport.write(offset, value, model),
            CONFIG_AT..NOTIFY_AT => model.write_config(offset - CONFIG_AT, value, ctx),
            _ => {}
        }
    }
}

/// Configuration space after reset.
fn registers(model: &Model) -> Registers {
    let mut all = [0; REGISTERS];
    let device = 0x1040 + u32::from(model.id());
    all[register::IDENTITY] = device << 16 | 0x1af4;
    all[register::COMMAND] = command::STATUS_CAPABILITIES;
    all[register::CLASS] = model.class() << 8 | 1;
    all[register::BAR] = 1;
    all[register::SUBSYSTEM] = 0x1100_1af4;
    all[register::CAPABILITIES] = (MSIX * 4) as u32;
    // Pin A.
    all[register::INTERRUPT] = 0x100;
    let last = model.queues() as u32;
    all[MSIX] = last << 16 | (IN_PORTS_CAPABILITIES as u32) << 8 | 0x11;
    all[MSIX + 1] = TABLE | u32::from(MEMORY);
    all[MSIX + 2] = PENDING | u32::from(MEMORY);
    let after = structures(&mut all, IN_PORTS_CAPABILITIES, PORTS, 0, WINDOW);
    debug_assert!(after <= WINDOW);
    capability(&mut all, WINDOW, 20, TYPE_WINDOW, IN_MEMORY_CAPABILITIES);
    structures(&mut all, IN_MEMORY_CAPABILITIES, MEMORY, IN_MEMORY, 0);
    all
}

/// Lists all structures from `at` on, then `next`; answers where the list ends.
fn structures(all: &mut Registers, at: usize, bar: u8, base: u32, next: usize) -> usize {
    let list = [
        (TYPE_COMMON, COMMON_AT, COMMON),
        (TYPE_ISR, ISR_AT, 1),
        (TYPE_DEVICE, CONFIG_AT, CONFIG as u32),
        (TYPE_NOTIFY, NOTIFY_AT, NOTIFY_SIZE),
    ];
    let mut at = at;
    for (kind, offset, length) in list {
        let size = if kind == TYPE_NOTIFY { 20 } else { 16 };
        let following = if kind == TYPE_NOTIFY { next } else { at + size };
        capability(all, at, size, kind, following);
        all[at / 4 + 1] = bar.into();
        all[at / 4 + 2] = base + offset;
        all[at / 4 + 3] = length;
        if kind == TYPE_NOTIFY {
            all[at / 4 + 4] = NOTIFY_STEP;
        }
        at += size;
    }
    at
}

/// The first double word of a vendor-specific capability of virtio (4.1.4).
fn capability(all: &mut Registers, at: usize, size: usize, kind: u32, next: usize) {
    all[at / 4] = kind << 24 | (size as u32) << 16 | (next as u32) << 8 | 0x09;
}
