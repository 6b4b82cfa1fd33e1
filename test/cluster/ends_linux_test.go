package cluster

import "syscall"

// endsWithUs ends a program when the thread that started it ends, whatever kills the tests.
func endsWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
