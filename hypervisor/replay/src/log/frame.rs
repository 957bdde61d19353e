//! A frame as an entry has it: its beginning may be rebuilt from earlier frames, and then it is not in the log.

/// The most bytes of a frame that are rebuilt.
pub const HEAD: usize = 96;

/// A frame for a network device, without FCS.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    head: [u8; HEAD],
    /// Bytes of the head that there are.
    length: u8,
    /// What follows the head.
    rest: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame that lies in one piece.
    #[must_use]
    pub const fn whole(bytes: &'a [u8]) -> Self {
        Self { head: [0; HEAD], length: 0, rest: bytes }
    }

    /// A frame with this head, of which so many bytes are meant (no more than there are).
    pub(super) fn rebuilt(head: [u8; HEAD], length: usize, rest: &'a [u8]) -> Self {
        Self { head, length: length.min(HEAD) as u8, rest }
    }

    /// Its length, bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length as usize + self.rest.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes, in two pieces.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 2] {
        [self.head.get(..usize::from(self.length)).unwrap_or_default(), self.rest]
    }

    /// Its bytes, where they lie in one piece behind each other.
    #[must_use]
    pub fn in_one_piece(&self) -> Option<&[u8]> {
        match self.parts() {
            [[], rest] => Some(rest),
            [head, []] => Some(head),
            _ => None,
        }
    }

    /// Its bytes, put together in `memory`; `None`: it is too long for that.
    pub fn assemble<'m>(&self, memory: &'m mut [u8]) -> Option<&'m [u8]> {
        let [head, rest] = self.parts();
        let memory = memory.get_mut(..self.len())?;
        let (first, second) = memory.split_at_mut(head.len());
        first.copy_from_slice(head);
        second.copy_from_slice(rest);
        Some(memory)
    }
}

impl<'a> From<&'a [u8]> for Frame<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::whole(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Frame<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::whole(bytes)
    }
}

impl PartialEq for Frame<'_> {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |frame: &Self, at: usize| {
            let [head, rest] = frame.parts();
            head.get(at).or_else(|| rest.get(at - head.len())).copied()
        };
        self.len() == other.len() && (0..self.len()).all(|at| bytes(self, at) == bytes(other, at))
    }
}

impl Eq for Frame<'_> {}

impl core::fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [head, rest] = self.parts();
        f.debug_list().entries(head.iter().chain(rest)).finish()
    }
}
