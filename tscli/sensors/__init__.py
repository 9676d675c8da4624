"""`tscli sensors`: what a robot must sense, found by distilling one teacher into students that see less and less."""
