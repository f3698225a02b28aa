//! Streams: queues of work that run when the host has to see a result.
