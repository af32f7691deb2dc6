//! The one place where names and uuids of our devices are made and read.
