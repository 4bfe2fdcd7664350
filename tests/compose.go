// Loads compose.yaml as Docker Compose does before anything else, by Compose's own loader. Says what is wrong with it.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(nil, cli.WithOsEnv, cli.WithDotEnv, cli.WithDefaultConfigPath)
	if err == nil {
		_, err = options.LoadProject(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
