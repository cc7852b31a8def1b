//! Whole-system tests with faults.
