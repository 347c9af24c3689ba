// Package config reads Causeway's configuration file: one YAML document that
// says which interfaces and cores a node works with, which anycast endpoints
// it answers on, and which tunnels and routes it serves.
//
//	c, err := config.Load("/etc/causeway/causeway.yaml")
//	if err != nil {
//		fmt.Fprintln(os.Stderr, err) // every mistake of the file, one a line
//		os.Exit(1)
//	}
//	for _, w := range c.Warnings() {
//		fmt.Fprintln(os.Stderr, "warning:", w)
//	}
//	for _, t := range c.Tunnels {
//		fmt.Println(t.Name, t.MTU, t.MSS4(), t.MSS6())
//	}
//
// A *Config that Parse or Load returned without an error is complete (defaults
// filled in) and consistent: names are unique, references lead somewhere,
// sizes fit into a frame. Callers need no checks of their own.
//
// The package only looks at text, its own and that of the files with keys that
// it names; what certificates say is not looked at. Whether an interface exists,
// or a socket can be bound, is found out by those who use the configuration.
package config
