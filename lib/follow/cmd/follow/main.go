// Command follow writes the logs of a namespace's containers to files, in the form and at the places at which the kubelet writes
// them on a machine: FOLDER/NAMESPACE_POD_UID/CONTAINER/0.log. It needs no machine, only a service account that may list pods and read
// their logs. A shipper beside it reads the files.
//
//	follow NAMESPACE…
//
// The API server does not say whether a line came from standard output or standard error, so every line says stdout.
// https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const kept = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	folder := flag.String("folder", "/var/log/pods", "where the files are written")
	server := flag.String("server", "https://kubernetes.default.svc", "the API server")
	account := flag.String("account", "/var/run/secrets/kubernetes.io/serviceaccount", "folder with the service account's token and ca.crt")
	every := flag.Duration("every", time.Second, "how often new containers are looked for")
	limit := flag.Int64("limit", 2<<20, "bytes after which a file is rotated")
	flag.Parse()
	if flag.NArg() == 0 || *every <= 0 || *limit <= 0 {
		fmt.Fprintln(os.Stderr, "follow: usage: follow [-every 1s] [-limit 2097152] NAMESPACE…")
		os.Exit(2)
	}
	client, err := newClient(*server, filepath.Join(*account, "ca.crt"), filepath.Join(*account, "token"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "follow:", err)
		os.Exit(2)
	}
	follower := follower{client: client, folder: *folder, limit: *limit, every: *every, keep: kept, say: os.Stderr}
	follower.run(ctx, flag.Args())
}
