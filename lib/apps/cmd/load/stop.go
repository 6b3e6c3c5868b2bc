package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// stopRun sends SIGTERM to the processes of this same program that were started as `run NAME`.
// There is no file to leave behind: they are found by their command line.
func stopRun(proc, name string) error {
	own, err := os.Readlink(filepath.Join(proc, "self/exe"))
	if err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	if err != nil {
		return err
	}
	for _, folder := range found {
		pid, err := strconv.Atoi(filepath.Base(folder))
		if err != nil || pid == os.Getpid() {
			continue
		}
		program, err := os.Readlink(filepath.Join(folder, "exe"))
		if err != nil || program != own {
			continue // another's, or gone
		}
		line, err := os.ReadFile(filepath.Join(folder, "cmdline"))
		words := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		if err != nil || len(words) != 3 || words[1] != "run" || words[2] != name {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && err != syscall.ESRCH {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	return nil // a run that has already ended is what was asked for
}
