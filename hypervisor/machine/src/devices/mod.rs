//! The small devices on the board.
