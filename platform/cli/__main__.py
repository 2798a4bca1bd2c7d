from hekla.platform.cli import main

main()
