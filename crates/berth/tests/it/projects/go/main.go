// A program that tells its version and whom it runs as.
package main

import (
	"fmt"
	"os"
)

var version = "unknown"

func greeting() string {
	return fmt.Sprintf("go %s as %d", version, os.Getuid())
}

func main() {
	fmt.Println(greeting())
}
