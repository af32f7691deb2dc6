//! What is there (`Observed`) and what shall be there (`Desired`).
