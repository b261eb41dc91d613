//! braid-control
