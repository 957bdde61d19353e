//! The lock server's logic: one record for each virtual machine, changed by one request at a time.

use super::super::record::{Record, Standing, VmId};
use super::wire::{Operation, REPLY, Reply, Request, Verdict};
use alloc::vec::Vec;

/// What a server was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were answered.
    pub requests: u64,
    /// Datagrams that are no requests.
    pub garbage: u64,
    /// Records written by an arming.
    pub armed: u64,
    /// Records written by a contention: generations consumed.
    pub won: u64,
    /// Times that a contender was told that it has lost.
    pub lost: u64,
    /// Requests that no record fitted.
    pub refused: u64,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    records: Vec<Record>,
    limit: usize,
    counters: Counters,
}

impl Server {
    /// A server that knows nothing, for so many virtual machines. Allocates all that it will need.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { records: Vec::with_capacity(limit), limit, counters: Counters::default() }
    }

    /// What is recorded of a virtual machine.
    #[must_use]
    pub fn record(&self, vm: VmId) -> Option<&Record> {
        self.records.iter().find(|record| record.vm == vm)
    }

    /// Takes up a record from before, as if it had never stood still. False: there is no room.
    pub fn know(&mut self, record: Record) -> bool {
        let has_room = self.records.len() < self.limit && self.record(record.vm).is_none();
        if has_room {
            self.records.push(record);
        }
        has_room
    }

    /// What it was asked.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes a datagram and gives the reply's. `None`: it was no request.
    pub fn datagram(&mut self, bytes: &[u8]) -> Option<[u8; REPLY]> {
        let Some(request) = Request::parse(bytes) else {
            self.counters.garbage += 1;
            return None;
        };
        Some(self.request(&request).emit())
    }

    /// Decides. What was decided stays so: a request that comes again is answered as before, as long as its decision stands.
    pub fn request(&mut self, request: &Request) -> Reply {
        self.counters.requests += 1;
        let verdict = match request.operation {
            Operation::Arm { .. } => self.arm(request),
            Operation::Contend { position } => self.contend(request, position),
            Operation::ReadBack => self.read_back(request),
        };
        self.counters.refused += u64::from(verdict == Verdict::Refused);
        self.counters.lost += u64::from(verdict == Verdict::Lost && is_contention(request));
        let record = self.record(request.vm).copied();
        Reply { id: request.id, nonce: request.nonce, verdict, record }
    }

    /// A generation begins if it is newer than all before. Its two hosts are both at their start then (the peer has agreed to be
    /// armed), so no older one lives.
    fn arm(&mut self, request: &Request) -> Verdict {
        let Operation::Arm { peer } = request.operation else { return Verdict::Refused };
        let new = Record {
            vm: request.vm,
            generation: request.generation,
            standing: Standing::Protected,
            owner: request.side,
            nonce: request.nonce,
            peer,
            position: 0,
        };
        let has_room = self.records.len() < self.limit;
        match self.records.iter_mut().find(|record| record.vm == request.vm) {
            Some(old) if *old == new => return Verdict::Armed,
            Some(old) if old.generation < new.generation => *old = new,
            Some(_) => return Verdict::Refused,
            None if has_room => self.records.push(new),
            None => return Verdict::Refused,
        }
        self.counters.armed += 1;
        Verdict::Armed
    }

    fn contend(&mut self, request: &Request, position: u64) -> Verdict {
        let verdict = self.read_back(request);
        if verdict != Verdict::Free {
            return verdict;
        }
        let Some(record) = self.records.iter_mut().find(|record| record.vm == request.vm) else {
            return Verdict::Refused;
        };
        if record.owner != request.side {
            record.peer = record.nonce;
        }
        (record.standing, record.owner) = (Standing::Solo, request.side);
        (record.nonce, record.position) = (request.nonce, position);
        self.counters.won += 1;
        Verdict::Won
    }

    fn read_back(&self, request: &Request) -> Verdict {
        let Some(record) = self.record(request.vm) else { return Verdict::Refused };
        let owns = record.owner == request.side && record.nonce == request.nonce;
        let peer = record.owner != request.side && record.peer == request.nonce;
        match (record.generation.cmp(&request.generation), record.standing) {
            // A newer one began: whoever is asked about was over.
            (core::cmp::Ordering::Greater, _) => Verdict::Lost,
            (core::cmp::Ordering::Less, _) => Verdict::Refused,
            // Another start of one of the hosts: it has no part in this.
            _ if !owns && !peer => Verdict::Refused,
            (_, Standing::Protected) => Verdict::Free,
            (_, Standing::Solo) if owns => Verdict::Won,
            (_, Standing::Solo) => Verdict::Lost,
        }
    }
}

const fn is_contention(request: &Request) -> bool {
    matches!(request.operation, Operation::Contend { .. })
}
