// Package e2e tests the sallyport binary from outside, with programs that nobody
// here wrote: a browser, an identity provider, and clients and servers of gRPC,
// WebSocket and HTTP/2.
//
// It is a module of its own, so that what drives a browser never comes near the
// product. It imports nothing of Sallyport: it builds the binary, starts it with
// a configuration file, and looks at what people see. All traffic stays on
// loopback. What is missing on a machine (Chromium, node, the npm packages, curl)
// skips the tests that need it; SALLYPORT_REQUIRE=1 makes that a failure.
package e2e
