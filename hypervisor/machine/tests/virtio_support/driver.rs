//! The driver's side of a device: capabilities, features, queues, interrupts.

use super::Board;
use super::ring::Ring;

/// How the driver reaches the device's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The first structures listed: by ports.
    Ports,
    /// The structures in memory.
    Memory,
    /// The capability for access by configuration space.
    Window,
}

/// A structure's place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Structure {
    pub bar: u8,
    pub offset: u32,
    pub length: u32,
}

/// A device, as its driver knows it.
#[derive(Clone, Debug)]
pub struct Driver {
    pub device: u8,
    pub way: Way,
    /// By type, 1 to 4.
    pub structures: [Structure; 5],
    pub notify_step: u32,
    window: u8,
    pub msix: u8,
    pub features: u64,
    pub rings: Vec<Ring>,
}

pub const INDIRECT: u64 = 1 << 28;
pub const EVENTS: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;

/// The common configuration structure's registers: offset and size.
pub mod common {
    pub const DEVICE_SELECT: (u32, u8) = (0x00, 4);
    pub const DEVICE_FEATURES: (u32, u8) = (0x04, 4);
    pub const DRIVER_SELECT: (u32, u8) = (0x08, 4);
    pub const DRIVER_FEATURES: (u32, u8) = (0x0c, 4);
    pub const CONFIG_VECTOR: (u32, u8) = (0x10, 2);
    pub const QUEUES: (u32, u8) = (0x12, 2);
    pub const STATUS: (u32, u8) = (0x14, 1);
    pub const GENERATION: (u32, u8) = (0x15, 1);
    pub const QUEUE_SELECT: (u32, u8) = (0x16, 2);
    pub const QUEUE_SIZE: (u32, u8) = (0x18, 2);
    pub const QUEUE_VECTOR: (u32, u8) = (0x1a, 2);
    pub const QUEUE_ENABLE: (u32, u8) = (0x1c, 2);
    pub const QUEUE_NOTIFY: (u32, u8) = (0x1e, 2);
    pub const DESCRIPTORS: (u32, u8) = (0x20, 4);
    pub const AVAILABLE: (u32, u8) = (0x28, 4);
    pub const USED: (u32, u8) = (0x30, 4);
}

impl Driver {
    /// Walks the capabilities as Linux does: the first structure of each type that the driver can use.
    pub fn find(board: &mut Board, device: u8, way: Way) -> Self {
        let mut driver = Self {
            device,
            way,
            structures: [Structure::default(); 5],
            notify_step: 0,
            window: 0,
            msix: 0,
            features: 0,
            rings: Vec::new(),
        };
        assert_eq!(board.config(device, 0, 2), 0x1af4, "vendor");
        assert_ne!(board.config(device, 6, 2) & 0x10, 0, "there is a list of capabilities");
        let mut at = board.config(device, 0x34, 1) as u8;
        let mut seen = 0;
        while at != 0 {
            seen += 1;
            assert!(seen < 48, "a list without end");
            match board.config(device, at, 1) {
                0x11 => driver.msix = at,
                0x09 => driver.note(board, at),
                other => panic!("capability {other:#x}"),
            }
            at = board.config(device, at + 1, 1) as u8;
        }
        driver
    }

    fn note(&mut self, board: &mut Board, at: u8) {
        let kind = board.config(self.device, at + 3, 1) as usize;
        if kind == 5 {
            self.window = at;
            return;
        }
        let bar = board.config(self.device, at + 4, 1) as u8;
        let is_port = board.config(self.device, 0x10 + 4 * bar, 4) & 1 == 1;
        let unusable = self.way == Way::Memory && is_port;
        if unusable || self.structures[kind].length != 0 {
            return;
        }
        self.structures[kind] = Structure {
            bar,
            offset: board.config(self.device, at + 8, 4),
            length: board.config(self.device, at + 12, 4),
        };
        if kind == 2 {
            self.notify_step = board.config(self.device, at + 16, 4);
        }
    }

    /// Where a base address register points.
    pub fn base(&self, board: &mut Board, bar: u8) -> u64 {
        let value = board.config(self.device, 0x10 + 4 * bar, 4);
        u64::from(if value & 1 == 1 { value & !3 } else { value & !0xf })
    }

    fn aim(&self, board: &mut Board, structure: Structure, offset: u32, size: u8) {
        board.set_config(self.device, self.window + 4, 1, structure.bar.into());
        board.set_config(self.device, self.window + 8, 4, structure.offset + offset);
        board.set_config(self.device, self.window + 12, 4, size.into());
    }

    /// Reads a structure.
    pub fn read(&self, board: &mut Board, kind: usize, (offset, size): (u32, u8)) -> u32 {
        let structure = self.structures[kind];
        assert!(offset + u32::from(size) <= structure.length, "within the structure");
        match self.way {
            Way::Window => {
                self.aim(board, structure, offset, size);
                board.config(self.device, self.window + 16, size)
            }
            Way::Ports => {
                let port = self.base(board, structure.bar) as u16 + (structure.offset + offset) as u16;
                board.inp(port, size) as u32
            }
            Way::Memory => {
                let address = self.base(board, structure.bar) + u64::from(structure.offset + offset);
                board.peek(address, size) as u32
            }
        }
    }

    /// Writes a structure.
    pub fn write(&self, board: &mut Board, kind: usize, (offset, size): (u32, u8), value: u32) {
        let structure = self.structures[kind];
        assert!(offset + u32::from(size) <= structure.length, "within the structure");
        match self.way {
            Way::Window => {
                self.aim(board, structure, offset, size);
                board.set_config(self.device, self.window + 16, size, value);
            }
            Way::Ports => {
                let port = self.base(board, structure.bar) as u16 + (structure.offset + offset) as u16;
                board.outp(port, size, value.into());
            }
            Way::Memory => {
                let address = self.base(board, structure.bar) + u64::from(structure.offset + offset);
                board.poke(address, size, value.into());
            }
        }
    }

    /// Reads a common register.
    pub fn get(&self, board: &mut Board, register: (u32, u8)) -> u32 {
        self.read(board, 1, register)
    }

    /// Writes a common register.
    pub fn set(&self, board: &mut Board, register: (u32, u8), value: u32) {
        self.write(board, 1, register, value);
    }

    /// Reads and so clears the ISR status.
    pub fn isr(&self, board: &mut Board) -> u8 {
        self.read(board, 3, (0, 1)) as u8
    }

    /// The features that the device offers.
    pub fn offered(&self, board: &mut Board) -> u64 {
        let mut half = |select| {
            self.set(board, common::DEVICE_SELECT, select);
            u64::from(self.get(board, common::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// Resets the device and agrees on the features offered among these; answers the status then.
    pub fn agree(&mut self, board: &mut Board, wanted: u64) -> u8 {
        self.set(board, common::STATUS, 0);
        assert_eq!(self.get(board, common::STATUS), 0, "reset");
        self.set(board, common::STATUS, 1);
        self.set(board, common::STATUS, 3);
        self.features = self.offered(board) & wanted;
        self.accept(board, self.features)
    }

    /// Accepts just these features; answers the status then.
    pub fn accept(&mut self, board: &mut Board, features: u64) -> u8 {
        self.features = features;
        for half in 0..2 {
            self.set(board, common::DRIVER_SELECT, half);
            self.set(board, common::DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.set(board, common::STATUS, 3 | 8);
        self.get(board, common::STATUS) as u8
    }

    /// Sets all queues up with at most so many entries.
    pub fn queues(&mut self, board: &mut Board, most: u16) {
        for index in 0..self.get(board, common::QUEUES) {
            self.set(board, common::QUEUE_SELECT, index);
            let offered = self.get(board, common::QUEUE_SIZE) as u16;
            assert_eq!(offered, 256);
            let size = offered.min(most);
            self.set(board, common::QUEUE_SIZE, size.into());
            assert_eq!(self.get(board, common::QUEUE_SIZE), size.into());
            let ring = Ring::new(board, size, self.features);
            for (register, address) in [
                (common::DESCRIPTORS, ring.descriptors),
                (common::AVAILABLE, ring.available),
                (common::USED, ring.used),
            ] {
                self.set(board, register, address as u32);
                self.set(board, (register.0 + 4, 4), (address >> 32) as u32);
            }
            self.set(board, common::QUEUE_ENABLE, 1);
            assert_eq!(self.get(board, common::QUEUE_ENABLE), 1);
            assert_eq!(self.get(board, common::QUEUE_NOTIFY), index);
            self.rings.push(ring);
        }
    }

    /// Enables MSI-X with a message for each vector: the address tells the vector.
    pub fn use_messages(&self, board: &mut Board) {
        let control = board.config(self.device, self.msix + 2, 2);
        let count = (control & 0x7ff) + 1;
        let place = board.config(self.device, self.msix + 4, 4);
        let table = self.base(board, place as u8 & 7) + u64::from(place & !7);
        board.set_config(self.device, self.msix + 2, 2, control | 0xc000);
        for vector in 0..count {
            let entry = table + u64::from(vector) * 16;
            board.poke(entry, 4, 0xfee0_0000 + u64::from(vector) * 0x1000);
            board.poke(entry + 4, 4, 0);
            board.poke(entry + 8, 4, 0x40 + u64::from(vector));
            board.poke(entry + 12, 4, 0);
        }
        board.set_config(self.device, self.msix + 2, 2, control | 0x8000);
        self.set(board, common::CONFIG_VECTOR, 0);
        for index in 0..self.get(board, common::QUEUES) {
            self.set(board, common::QUEUE_SELECT, index);
            self.set(board, common::QUEUE_VECTOR, index + 1);
            assert_eq!(self.get(board, common::QUEUE_VECTOR), index + 1);
        }
    }

    /// Lets the device begin.
    pub fn go(&self, board: &mut Board) {
        self.set(board, common::STATUS, 3 | 8 | 4);
        assert_eq!(self.get(board, common::STATUS), 15);
    }

    /// A device with all features, all queues of this size, interrupts by the pin, up and running.
    pub fn start(board: &mut Board, device: u8, way: Way, wanted: u64, size: u16) -> Self {
        let mut driver = Self::find(board, device, way);
        assert_eq!(driver.agree(board, wanted | VERSION_1), 11, "features agreed");
        driver.queues(board, size);
        driver.go(board);
        driver
    }

    /// Notifies the device of a queue, whether it wants to be or not.
    pub fn notify(&self, board: &mut Board, queue: u16) {
        self.write(board, 2, (u32::from(queue) * self.notify_step, 2), queue.into());
    }

    /// Makes a chain available and notifies the device if it wants to be.
    pub fn send(&mut self, board: &mut Board, queue: u16, chain: &[(u64, u32, bool)]) -> u16 {
        let ring = &mut self.rings[usize::from(queue)];
        let head = ring.add(board, chain);
        if ring.wants_notification(board) {
            self.notify(board, queue);
        }
        head
    }

    /// Takes the next used chain of a queue: head and length.
    pub fn take(&mut self, board: &mut Board, queue: u16) -> Option<(u16, u32)> {
        self.rings[usize::from(queue)].take(board)
    }
}
