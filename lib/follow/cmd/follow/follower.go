package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"
)

type follower struct {
	client *client
	folder string
	limit  int64
	every  time.Duration
	keep   time.Duration // how long the files of a pod stay that is gone, for the shipper to read them to their ends
	say    io.Writer
}

// run follows every container of the namespaces until the context ends, also those that come later.
func (f *follower) run(ctx context.Context, namespaces []string) {
	var all sync.WaitGroup
	defer all.Wait()
	known := map[container]context.CancelFunc{}
	for ctx.Err() == nil {
		there := map[container]bool{}
		complete := true
		for _, namespace := range namespaces {
			found, err := f.client.containers(ctx, namespace)
			if err != nil {
				complete = false
				f.complain(ctx, "the pods of "+namespace, err)
			}
			for _, one := range found {
				there[one] = true
			}
		}
		for one := range there {
			if known[one] == nil {
				gone, cancel := context.WithCancel(context.Background())
				known[one] = cancel
				all.Go(func() { f.follow(ctx, gone, one) })
			}
		}
		for one, cancel := range known {
			if complete && !there[one] {
				cancel()
				delete(known, one)
			}
		}
		pause(ctx, f.every)
	}
}

// follow writes a container's log to its file until the context ends, or the container is gone and has said everything.
func (f *follower) follow(ctx, gone context.Context, one container) {
	file, err := newFile(filepath.Join(f.folder, one.namespace+"_"+one.pod+"_"+one.uid, one.name), f.limit)
	if err != nil {
		f.complain(ctx, "the file of "+one.String(), err)
		return
	}
	defer file.close()
	for ctx.Err() == nil {
		last := gone.Err() != nil
		if err := f.copy(ctx, one, file); err != nil && gone.Err() == nil {
			f.complain(ctx, "the log of "+one.String(), err)
		}
		if last {
			pause(ctx, f.keep)
			if ctx.Err() == nil {
				file.remove()
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-gone.Done():
		case <-time.After(f.every):
		}
	}
}

// copy writes what the log has after the file's last line. A line without its end is left for the next time.
func (f *follower) copy(ctx context.Context, one container, file *file) error {
	body, err := f.client.log(ctx, one, file.since())
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewReaderSize(body, 64<<10)
	before, seen := file.last, false
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if seen, err = file.new(line, seen); err != nil {
			return err
		}
		if seen {
			if err := file.add(line); err != nil {
				return err
			}
		}
		seen = seen || line == before
	}
}

func (f *follower) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		fmt.Fprintf(f.say, "follow: %s cannot be read: %v\n", what, err)
	}
}

func pause(ctx context.Context, span time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(span):
	}
}
