//! A real control plane and a node in a guest.
