// Package cluster tests the Helm chart and what is in deploy/kustomize with a control plane:
// etcd and kube-apiserver, built from their modules, the controllers of Kubernetes that make
// pods, and Helm 3 and Helm 4, which install and upgrade. There are no nodes: no scheduler and
// no kubelet, so no container starts and no probe is made. What needs no server is tested in
// test/charts.
//
// It is a module of its own, so that test/charts can be run without building Kubernetes.
package cluster
