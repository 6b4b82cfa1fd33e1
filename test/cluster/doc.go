// Package cluster tests the Helm chart and what is in deploy/kustomize with a control plane:
// etcd, kube-apiserver and kube-controller-manager, built from their modules, and Helm 3 and
// Helm 4 as people run them. There are no nodes: no scheduler and no kubelet, so no container
// starts and no probe is made. What needs no server is tested in test/charts.
//
// It is a module of its own, so that test/charts can be run without building Kubernetes.
package cluster
