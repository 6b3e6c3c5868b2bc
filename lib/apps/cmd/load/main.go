// Command load sends a bounded number of HTTP requests at a given pace and writes one JSON
// line for each. The same program runs on the lab's host and in a pod of the mesh.
//
//	load run < plan.json     send what the plan says (see Plan); the report goes to stdout
//	load idle                wait to be used: what a pod runs until `kubectl exec … load run`
//
// Pacing, workers and clock are vegeta's (https://github.com/tsenart/vegeta).
// Exit status: 0 the plan was carried out, whatever was answered; 1 it was not; 2 a bad plan.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(start(ctx, os.Args[1:]))
}

func start(ctx context.Context, args []string) int {
	switch {
	case len(args) == 1 && args[0] == "idle":
		<-ctx.Done()
		return 0
	case len(args) == 1 && args[0] == "run":
		plan, err := ReadPlan(os.Stdin)
		if err == nil {
			err = Run(ctx, plan, os.Stdout)
		}
		var bad badPlan
		switch {
		case err == nil:
			return 0
		case errors.As(err, &bad):
			fmt.Fprintln(os.Stderr, "load:", err)
			return 2
		default:
			fmt.Fprintln(os.Stderr, "load:", err)
			return 1
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: load run < plan.json | load idle")
		return 2
	}
}
