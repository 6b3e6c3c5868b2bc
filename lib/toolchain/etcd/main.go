// Command etcd is the etcd server: the same main as upstream's, whose own module holds only a replace of local folders.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
