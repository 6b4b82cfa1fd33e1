package storetest

import (
	"os"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
)

// asServer ends the server when the thread that started it ends, whatever kills the
// test, and has it run as the user that Debian makes for it: it refuses to be root.
func asServer() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if uid, gid, ok := serverUser(); ok {
		attr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	return attr
}

func serverUser() (uid, gid uint32, ok bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return 65534, 65534, true // nobody
	}
	uid64, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid64, _ := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(uid64), uint32(gid64), true
}

// handOver gives a folder to the user that the server runs as.
func handOver(dir string) error {
	if uid, gid, ok := serverUser(); ok {
		return os.Chown(dir, int(uid), int(gid))
	}
	return nil
}

func lockThread() { runtime.LockOSThread() }
