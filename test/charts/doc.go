// Package charts tests the Helm chart without a cluster: Helm 3 and Helm 4 lint and render
// it, what they render is decoded strictly into Kubernetes' own types, validated by the API
// server's own code and held to Pod Security Admission, and the configuration in it goes
// through the sallyport binary. What is in deploy/ for kustomize and compose is read by their
// own libraries.
//
// It is a module of its own, so that Helm and Kubernetes never come near the product.
package charts
