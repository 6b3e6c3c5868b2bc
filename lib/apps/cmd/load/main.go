// Command load sends a bounded number of HTTP requests at a given pace and writes one JSON
// line for each. The same program runs on the lab's host and in a pod of the mesh.
//
//	load run [NAME] < plan.json   send what the plan says (see Plan); the report goes to stdout
//	load answered NAME            how many of that run's requests were answered so far; 0 where it is not under way
//	load stop NAME                end that run; its report stays whole
//	load idle                     wait to be used: what a pod runs until `kubectl exec … load run`
//
// Pacing, workers and clock are vegeta's (https://github.com/tsenart/vegeta).
// Exit status: 0 the plan was carried out, whatever was answered; 1 it was not; 2 a bad plan.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

const usage = "usage: load run [NAME] < plan.json | load answered NAME | load stop NAME | load idle"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := start(ctx, os.Args[1:], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
	}
	os.Exit(status(err))
}

func status(err error) int {
	var bad badPlan
	switch {
	case err == nil:
		return 0
	case errors.As(err, &bad):
		return 2
	default:
		return 1
	}
}

func start(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	verb := ""
	if len(args) > 0 {
		verb = args[0]
	}
	switch {
	case verb == "idle" && len(args) == 1:
		<-ctx.Done()
		return nil
	case verb == "stop" && len(args) == 2:
		return stopRun("/proc", args[1])
	case verb == "answered" && len(args) == 2:
		count, err := ask(ctx, args[1])
		if err == nil {
			_, err = fmt.Fprintln(out, count)
		}
		return err
	case verb == "run" && len(args) <= 2:
		plan, err := ReadPlan(in)
		if err != nil {
			return err
		}
		var answered atomic.Int64
		if len(args) == 2 {
			listener, err := tell(ctx, args[1], &answered)
			if err != nil {
				return err
			}
			defer listener.Close()
		}
		return Run(ctx, plan, out, &answered)
	default:
		return badPlan(usage)
	}
}
