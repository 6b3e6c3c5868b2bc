package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
)

// socket is where a run of that name tells its count: an abstract one, which goes with its process.
func socket(name string) string { return "@stackbook-load-" + name }

// tell answers whoever connects with the count, until the listener is closed.
func tell(ctx context.Context, name string, count *atomic.Int64) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket(name))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // closed
			}
			fmt.Fprintln(connection, count.Load())
			connection.Close()
		}
	}()
	return listener, nil
}

// ask is the count that the run of that name tells; 0 where it has not started yet, or has ended.
func ask(ctx context.Context, name string) (int64, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, "unix", socket(name))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	var count int64
	_, err = fmt.Fscanln(connection, &count)
	return count, err
}
