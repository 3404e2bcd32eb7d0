// Command translate is Butane as the version that these examples are tested with has it: it writes the Ignition
// configuration of a Butane file to its output.
//
//	go run ./translate flatcar.bu >config.ign
package main

import (
	"fmt"
	"os"

	"github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "translate: one Butane file is to be named")
		os.Exit(2)
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "translate:", err)
		os.Exit(1)
	}
	out, report, err := config.TranslateBytes(text, common.TranslateBytesOptions{
		TranslateOptions: common.TranslateOptions{FilesDir: "../../systems/systemd"}, // from this module's folder
	})
	if err != nil || len(report.Entries) > 0 { // as butane --strict
		fmt.Fprintf(os.Stderr, "translate: %s: %v\n%s", os.Args[1], err, report.String())
		os.Exit(1)
	}
	fmt.Println(string(out))
}
