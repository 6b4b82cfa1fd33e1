//go:build !linux

package storetest

import "syscall"

func asServer() *syscall.SysProcAttr { return nil }
func handOver(string) error          { return nil }
func lockThread()                    {}
