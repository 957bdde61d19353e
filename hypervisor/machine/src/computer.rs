//! The computer as a whole: which device answers which port and address, and who raises which line.
