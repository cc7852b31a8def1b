//! Time and people: holds, parked jobs, dead letters, the projection of jobs.
