// Command bench measures what a request costs: the CPU time of the process that serves it,
// beside that of others who do less, in one run on one machine. docs/performance.md says how to
// read what it writes there.
//
// It is a module of its own, and none of it is in the product. It starts the sallyport binary
// with a configuration file and speaks to it over sockets; from the packages it takes only what
// seals a session, so that nobody has to sign in first. Load and upstream are one thread with
// epoll (loop.go), on a core of their own. It runs on Linux.
//
//	bench rounds    what a request costs, beside others (make bench)
//	bench scaling   how that grows (make bench-scaling)
//	bench bare      started by the others: what they compare with
package main
