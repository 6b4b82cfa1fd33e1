//go:build !linux

package cluster

import "syscall"

func endsWithUs() *syscall.SysProcAttr { return nil }
