//! Follows the events of jobs; webhooks come later.
