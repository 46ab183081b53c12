//! The lab's console: what people see and do at `/lab`.

pub mod access;
