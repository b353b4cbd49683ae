//! Functions over HTTP, by real `curl` where a client's view matters and by bytes where they do.

mod gateway;
