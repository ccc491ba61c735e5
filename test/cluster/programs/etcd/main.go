// Command etcd is etcd's server: its own main package would be built under the
// name "server". It runs alone, as a process of a bed.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
