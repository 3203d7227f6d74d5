// etcd, the program: its module keeps its own main package under a path that cannot be built by version.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
